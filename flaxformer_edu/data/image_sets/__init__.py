"""Images with one of ten classes each: the digits of scikit-learn, MNIST and CIFAR-10."""

PREPARED_VERSION = "1.0.0"  # of the records that tensorflow-datasets keeps in the cache
