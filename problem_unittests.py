"""The checks under the notebook's cells: an index of the modules in `assets/checks`.

In the notebook, `tests.test_scale(scale)` below a definition checks it there and then.
`pytest problem_unittests.py` runs the same checks on what the notebook defines.
`SUBMISSION=student.ipynb pytest problem_unittests.py` runs those of the exercises on a student's
copy (`assets/docs/teaching.md`).
"""

# ruff: noqa: F401
# isort: off

import functools
import inspect
import os
import sys
import types
from pathlib import Path

# Exercises: a stub, its check, its solution
from assets.checks.exercises import exercise, solution
from assets.checks.notebooks import Summary, grade, read_lesson, read_submission

# The data
from assets.checks.data import test_get_dataloader, test_scale

# The networks
from assets.checks.networks import test_discriminator, test_generator, test_weights_init
from assets.checks.networks import test_build_network

# Losses and the optimizer
from assets.checks.losses import test_real_loss, test_fake_loss, test_adam

# Training
from assets.checks.training import test_train_step, test_train

# Schedules and scores
from assets.checks.scores import test_frechet_distance, test_schedules, test_precision_recall
from assets.checks.scores import test_sliced_wasserstein, test_ms_ssim, test_nearest_training_faces
from assets.checks.scores import test_leave_one_out, test_skin_tone

# Next steps
from assets.checks.next_steps import test_exchange_norm, test_upsampling, test_checkerboard
from assets.checks.next_steps import test_loss_pairs, test_penalty, test_augment, test_step_with
from assets.checks.next_steps import test_truncated, test_style_generator, test_carry_over
from assets.checks.next_steps import test_at_full_size, test_flow

# Labels
from assets.checks.labels import test_conditional, test_label_sweep, test_attribute_classifier
from assets.checks.labels import test_balanced_accuracy

# Makeup
from assets.checks.makeup import test_image_to_image, test_patch_discriminator, test_image_pool
from assets.checks.makeup import test_cyclegan_step, test_makeup_errors, test_identity_kept

# Toy networks and pictures, for other tests as well
from assets.checks.makeup import Shift
from assets.checks.layers import pictures
from assets.checks.watch import Watch

LESSON = "dlnd_face_generation"  # tells this module from others of its name
NOTEBOOK = Path(__file__).with_name(f"{LESSON}.ipynb")
SUBMISSION = os.environ.get("SUBMISSION")
CHECKS = {name: value for name, value in globals().items() if name.startswith("test_")}


@functools.cache
def read_notebook():
    """The notebook's imports, functions, classes and constants as a module; nothing else runs.

    Its constants are there as `settings`, too.
    """
    module = sys.modules[LESSON] = types.ModuleType(LESSON)
    read_lesson(NOTEBOOK, module)
    return module


def exercises():
    """The exercise that each check is for, by the name of the check."""
    tests = {name: test for name, test in CHECKS.items() if test.of_exercise}
    return {name: next(iter(inspect.signature(test).parameters)) for name, test in tests.items()}


if "pytest" in sys.modules and not SUBMISSION:  # every argument of a check is a fixture
    import pytest

    def fixture_of(name):
        return pytest.fixture(name=name)(lambda: getattr(read_notebook(), name))

    for name in {name for test in CHECKS.values() for name in inspect.signature(test).parameters}:
        globals()[f"{name}_of_the_notebook"] = fixture_of(name)

if "pytest" in sys.modules and SUBMISSION:  # the checks of the exercises, on what was handed in
    import pytest

    @pytest.fixture(scope="session")
    def written():
        try:
            return read_submission(SUBMISSION, read_notebook(), exercises().values())
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            pytest.exit(f"SUBMISSION = {SUBMISSION!r} is no notebook: {reason}", returncode=1)

    @pytest.fixture(scope="session", autouse=True)
    def summary(pytestconfig):
        pytestconfig.pluginmanager.register(Summary(SUBMISSION, exercises()))

    def graded(name):
        def run(written):
            problem = grade(CHECKS[name], exercises()[name], written, SUBMISSION)
            if problem:
                pytest.fail(problem, pytrace=False)

        return run

    for name in CHECKS:
        del globals()[name]
    for name in exercises():
        globals()[name] = graded(name)
