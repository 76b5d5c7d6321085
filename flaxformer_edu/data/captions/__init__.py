"""Captioned pictures: CS231n's folder of COCO, any other in its layout, and a set that is drawn."""
