"""Data: what to read it from, and how it reaches the device.

Every loader returns whole arrays, checked; `Batches` cuts them into batches that depend on nothing but (seed, step);
on the device images are normalised by the `Pixels` of their data set, and augmented by `augment`.

Rooms: `image_sets` (digits, MNIST, CIFAR-10, your own), `preprocessing` (of pictures, as other libraries do it),
`captions` (COCO, and drawn pictures), `words` (of five languages), `text` (pairs of texts, and vocabularies), `formats`
(files from elsewhere); `sources` lists all sets by name.
"""

from flaxformer_edu.data.arrays import ArrayDataset, Batches, Dataset, Pixels, normalise
from flaxformer_edu.data.augment import cutmix, random_crop, random_flip
from flaxformer_edu.data.captions.coco import load_coco
from flaxformer_edu.data.captions.dataset import CaptionDataset, caption_dataset, decode_captions
from flaxformer_edu.data.captions.drawn import picture_set, write_pictures
from flaxformer_edu.data.captions.own import write_caption_folder
from flaxformer_edu.data.evaluation import evaluation_batches
from flaxformer_edu.data.image_sets.cifar10 import CIFAR10_PIXELS
from flaxformer_edu.data.image_sets.digits import load_digits, stratified_split
from flaxformer_edu.data.image_sets.loading import load_cifar10, load_mnist
from flaxformer_edu.data.image_sets.own import PICTURE_FORMS, has_pictures, load_pictures, measure_pixels
from flaxformer_edu.data.images import PictureReader, read_images, resize_image, thumbnail
from flaxformer_edu.data.preprocessing import Preprocessing
from flaxformer_edu.data.records import RecordDataset
from flaxformer_edu.data.sources import SOURCES, source_named
from flaxformer_edu.data.text.sequences import LONGEST, Pair, generated_pairs, pair_dataset, read_pairs
from flaxformer_edu.data.text.vocabulary import (
    Characters,
    Subwords,
    Vocabulary,
    decode_texts,
    encode_texts,
    open_vocabulary,
)
from flaxformer_edu.data.words import ALPHABET, LANGUAGES, encode_words, fold_word, load_words, split_of
from flaxformer_edu.data.words.lang_id import decode_word, load_lang_id
from flaxformer_edu.files import cache_folder

__all__ = [
    "ALPHABET",
    "CIFAR10_PIXELS",
    "LANGUAGES",
    "LONGEST",
    "PICTURE_FORMS",
    "SOURCES",
    "ArrayDataset",
    "Batches",
    "CaptionDataset",
    "Characters",
    "Dataset",
    "Pair",
    "PictureReader",
    "Pixels",
    "Preprocessing",
    "RecordDataset",
    "Subwords",
    "Vocabulary",
    "cache_folder",
    "caption_dataset",
    "cutmix",
    "decode_captions",
    "decode_texts",
    "decode_word",
    "encode_texts",
    "encode_words",
    "evaluation_batches",
    "fold_word",
    "generated_pairs",
    "has_pictures",
    "load_cifar10",
    "load_coco",
    "load_digits",
    "load_lang_id",
    "load_mnist",
    "load_pictures",
    "load_words",
    "measure_pixels",
    "normalise",
    "open_vocabulary",
    "pair_dataset",
    "picture_set",
    "random_crop",
    "random_flip",
    "read_images",
    "read_pairs",
    "resize_image",
    "source_named",
    "split_of",
    "stratified_split",
    "thumbnail",
    "write_caption_folder",
    "write_pictures",
]
