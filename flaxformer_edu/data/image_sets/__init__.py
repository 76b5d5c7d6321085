"""Images with one of ten classes each: the digits of scikit-learn, MNIST and CIFAR-10."""
