"""Data: what to read it from, and how it reaches the device.

Every loader returns whole arrays, checked; `Batches` cuts them into batches that depend on nothing but (seed, step);
`augment` normalises and augments them on the device.
"""

from flaxformer_edu.data.arrays import ArrayDataset, Dataset, stratified_split
from flaxformer_edu.data.augment import normalise, random_crop, random_flip
from flaxformer_edu.data.batches import Batches, evaluation_batches
from flaxformer_edu.data.captions.coco import load_coco
from flaxformer_edu.data.captions.dataset import CaptionDataset, caption_dataset, decode_captions
from flaxformer_edu.data.captions.drawn import picture_set, write_pictures
from flaxformer_edu.data.image_sets.cifar10 import load_cifar10
from flaxformer_edu.data.image_sets.digits import load_digits
from flaxformer_edu.data.image_sets.mnist import load_mnist
from flaxformer_edu.data.images import PictureReader, read_images
from flaxformer_edu.data.prefetch import prefetch
from flaxformer_edu.data.records import RecordBatches, RecordDataset
from flaxformer_edu.data.text.sequences import generated_pairs, pair_dataset, read_pairs
from flaxformer_edu.data.text.vocabulary import Characters, Subwords, open_vocabulary
from flaxformer_edu.data.words.lang_id import load_lang_id

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
