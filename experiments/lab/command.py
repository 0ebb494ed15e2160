"""The command line of an experiment: flags in, and one clear sentence where it cannot go on."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import tyro

from experiments.lab.flags import UsageError
from experiments.lab.folder import close_folders
from experiments.lab.last_words import LAST_WORDS
from jaxood import parallel
from jaxood.data import DataError
from jaxood.integrity import IntegrityError
from jaxood.train import Diverged, Unsuitable


def main(run: Callable[[Any], Any], config_type: type, description: str | None) -> None:
    """Parse the command line and run an experiment; end on one sentence where that fails.

    Args:
        run: the experiment, a function of its flags.
        config_type: class of its flags, `Flags` or a subclass.
        description: text of ``--help``.
    """
    flags = tyro.cli(config_type, description=description)
    try:
        run(flags)
        parallel.wait_for_all()
    except (UsageError, DataError, Diverged, Unsuitable, IntegrityError) as error:
        _exit(f"error: {error}")
    except KeyboardInterrupt:
        _exit("\nstopped: the same command goes on from the last checkpoint")
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        if not parallel.lost_another(error):
            traceback.print_exc()
            _exit("error: this process failed, and the others will end")
        _exit(
            "error: another process of this run ended, or cannot be reached. Start all of them "
            f"again: they go on from the last checkpoint. ({error})"
        )
    finally:
        close_folders()
    LAST_WORDS.take_back()


def _exit(message: str) -> None:
    if not jax.distributed.is_initialized():
        sys.exit(message)
    # At a regular exit JAX would wait for the other processes, and they wait for this one.
    print(message, file=sys.stderr, flush=True)
    LAST_WORDS.take_back()
    os._exit(1)
