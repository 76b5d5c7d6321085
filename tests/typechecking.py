"""beartype as jaxtyping uses it in this suite: an int may stand where a float is asked for, as in all of Python."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
