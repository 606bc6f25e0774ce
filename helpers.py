"""What the lesson uses and does not teach: an index of the modules in `assets/lib`.

How data flows: `find_data` looks for the faces (a folder, an archive, or drawn ones) and returns
their folder. The lesson's `FaceFolder` lists its pictures, `decode_once` decodes them into
`DecodedFaces`, whose batches the loader serves and `keep_on` moves to a GPU.

How a generator flows: `Run` trains it and keeps its average in checkpoints. At the end
`export_generator` writes `generator.pt2`, with which anybody can generate faces.

How settings flow: `read_settings` turns the names of the first cell into one frozen `Settings`,
checked once. Functions take that object, or single values of it, as arguments.
"""

# ruff: noqa: F401
# isort: off

# Settings
from assets.lib.settings import Settings, check_choice, check_counts, check_image_size
from assets.lib.settings import check_settings
from assets.lib.sources import read_settings

# The data: where it is, its pictures, its labels, decoded faces
from assets.lib.sources import find_data
from assets.lib.files import DataError, DiskError
from assets.lib.pictures import is_image, load_face, load_image, read_squares
from assets.lib.labels import captions, class_folders, labelled_images
from assets.lib.decoding import decode_once
from assets.lib.other_folders import check_folders
from assets.lib.faces import PARTS, DecodedFaces, keep_on, split_domains

# Labels that are known or predicted
from assets.lib.labeled import check_faces, choose_labels, with_labels

# Figures and progress bars
from assets.lib.figures import progress, show_animation, show_figure, show_images
from assets.lib.panel import Sliders, show_panel

# Devices, and several processes that train together
from assets.lib.devices import aside, autocast, describe_device, explain_too_little_memory
from assets.lib.devices import has_fast_bfloat16, has_gpu
from assets.lib.ranks import as_batch, average_gradients, default_batch_size, find_device
from assets.lib.ranks import share_of, single_process, world

# The drawn faces, the face network, and scores
from assets.lib.drawn import draw_faces
from assets.lib.network import attribute_logits, load_face_network, to_lab
from assets.lib.scores import face_features, inception_scores, recalibrate_batch_norm, summary

# Runs, and what they leave
from assets.lib.identity import batch_size_of, identity
from assets.lib.runs import Run, StopRule
from assets.lib.checkpoints import begin_with, load_checkpoint
from assets.lib.export import export_generator

LESSON = "dlnd_face_generation"  # tells this module from others of its name
