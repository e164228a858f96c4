"""One file per verb, thin: parse, call, print."""

from auricle.cores import IdleCores

idle_cores = IdleCores()  # measured from here: to import the verbs takes long enough to notice other load
