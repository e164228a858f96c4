"""Raw audio → facts of experts → captions and questions with evidence → shards; see `auricle.curate.factory.run`."""
