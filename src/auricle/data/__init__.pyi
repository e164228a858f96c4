from .manifest import Entry as Entry
from .manifest import read_manifest as read_manifest
from .manifest import write_manifest as write_manifest
from .recipes import pack as pack
from .shards import ShardSet as ShardSet
from .shards import ShardWriter as ShardWriter
from .upstream import read_layout as read_layout
