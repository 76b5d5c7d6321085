"""Data: what to read it from, and how it reaches the device.

Every loader returns whole arrays, checked; `Batches` cuts them into batches that depend on nothing but (seed, step);
`augment` normalises and augments them on the device.
"""

from flaxformer_edu.data.arrays import ArrayDataset, Dataset, stratified_split
from flaxformer_edu.data.augment import normalise, random_crop, random_flip
from flaxformer_edu.data.batches import Batches, evaluation_batches
from flaxformer_edu.data.cache import cache_folder
from flaxformer_edu.data.captions import CaptionDataset, caption_dataset, decode_captions
from flaxformer_edu.data.cifar10 import load_cifar10
from flaxformer_edu.data.coco import load_coco
from flaxformer_edu.data.digits import load_digits
from flaxformer_edu.data.images import PictureReader, read_images
from flaxformer_edu.data.lang_id import load_lang_id
from flaxformer_edu.data.mnist import load_mnist
from flaxformer_edu.data.pictures import picture_set, write_pictures
from flaxformer_edu.data.prefetch import prefetch
from flaxformer_edu.data.records import RecordBatches, RecordDataset
from flaxformer_edu.data.sequences import generated_pairs, pair_dataset, read_pairs
from flaxformer_edu.data.vocabulary import Characters, Subwords, open_vocabulary

__all__ = [
    "ArrayDataset",
    "Batches",
    "CaptionDataset",
    "Characters",
    "Dataset",
    "PictureReader",
    "RecordBatches",
    "RecordDataset",
    "Subwords",
    "cache_folder",
    "caption_dataset",
    "decode_captions",
    "evaluation_batches",
    "generated_pairs",
    "load_cifar10",
    "load_coco",
    "load_digits",
    "load_lang_id",
    "load_mnist",
    "normalise",
    "open_vocabulary",
    "pair_dataset",
    "picture_set",
    "prefetch",
    "random_crop",
    "random_flip",
    "read_images",
    "read_pairs",
    "stratified_split",
    "write_pictures",
]
