"""Runs one verb as a Hydra application whose mistakes end in one helpful line and exit code 2."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import config, registry
from zoo.commands import until_reader_leaves
from zoo.commands._ending import interrupted, stop
from zoo.commands._hints import explain
from zoo.files import BadFile
from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from omegaconf import DictConfig

log = logging.getLogger("zoo")


def run(config_name: str, task: Callable[[DictConfig], Any], files: str | None = None, text: str | None = None) -> None:
    """Composes `conf/<config_name>.yaml` with the command line and calls `task` on it (once per job of a multirun).

    `files` is the key that plain arguments before the overrides are the value of, None where there can't be any; `text`
    the key whose value is free text, which may hold what Hydra's grammar refuses.
    An unknown name, key or an ill-formed override prints the nearest name and exits with 2, as does a UsageError raised
    by the task. Any other error inside the task keeps its whole traceback.
    """
    import hydra

    os.environ["HYDRA_FULL_ERROR"] = "1"
    logging.raiseExceptions = False  # a log line that nobody reads any more isn't worth a traceback each
    config.register_plugin_configs()
    sys.argv[1:] = _flags_first(_text_quoted(_files_as_override(sys.argv[1:], files), text))
    _refuse_folders_apart(sys.argv[1:])
    started: list[bool] = []

    def job(cfg: DictConfig) -> Any:
        started.append(True)
        _warn_of_former_names()
        try:
            with config.isolated_job():
                return task(cfg)
        except (UsageError, BadFile) as error:  # before Hydra sees it and announces a failed job
            _forget_folder()
            stop(_bad_file(error) or str(error))
        except FileNotFoundError as error:
            if error.errno is not None:  # the system's own, not one that explains itself
                raise
            _forget_folder()
            stop(str(error))
        except Exception as error:
            if not _bad_file(error):
                raise
            stop(_bad_file(error))

    with _one_line_errors(config_name, started), until_reader_leaves():
        hydra.main(config_path=str(config.conf_dir()), config_name=config_name, version_base="1.3")(job)()


@contextmanager
def _one_line_errors(config_name: str, started: list[bool]) -> Iterator[None]:
    """Ends the command with one line for what is wrong with its words; `started` fills where a job has begun."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except UsageError as error:
        stop(str(error))
    except KeyboardInterrupt:
        interrupted()
    except Exception as error:
        if type(error).__module__.startswith("submitit"):
            stop(str(error))  # what the job itself wrote to its log; the traceback here is submitit's own
        if started:
            raise
        if isinstance(error, (HydraException, OmegaConfBaseException)):
            stop(explain(error, config_name, sys.argv[1:]))
        if isinstance(error, ValueError) and "Config group override" in str(error):  # Hydra's answer to group=null
            stop("a group is left out as ~group, not as group=null: for example ~data")
        if isinstance(error, OSError):  # Hydra makes the run's folder
            stop(f"the run's folder can't be made: {error}")
        raise


def _warn_of_former_names() -> None:
    """Says which words of the command line are former names."""
    from hydra.core.hydra_config import HydraConfig

    for group, word in HydraConfig.get().runtime.choices.items():
        new = registry.RENAMED.get(group, {}).get(word)
        if new:
            log.warning("%s=%s is called %s=%s now; the old name will go", group, word, group, new)


def _files_as_override(arguments: list[str], key: str | None) -> list[str]:
    """Turns the plain arguments at the beginning into one override, quoted: Hydra's grammar refuses most file names."""
    count = 0
    while key and count < len(arguments) and _is_plain(arguments[count]):
        count += 1
    for before, late in zip(arguments[count:], arguments[count + 1 :], strict=False):
        if key and not before.startswith("-") and _is_plain(late) and Path(late).exists():
            stop(f"'{late}' stands behind '{before}': files and folders come before everything else")
    if not count:
        return arguments
    names = [quoted(name) for name in arguments[:count]]
    return [f"{key}={names[0] if count == 1 else '[' + ','.join(names) + ']'}", *arguments[count:]]


def _is_plain(argument: str) -> bool:
    """Tells a file from an override or a flag; `a=b.jpg` is a file where one of that name exists."""
    return not argument.startswith(("-", "+", "~")) and ("=" not in argument or Path(argument).exists())


def quoted(text: str) -> str:
    """Returns a text as a value of an override, whatever it holds."""
    # A backslash counts only before a quote; OmegaConf would replace what looks like an interpolation.
    text = re.sub(r"(\\*)(\"|$)", r"\1\1\2", text.replace("${", "\\${"))
    return '"' + text.replace('"', '\\"') + '"'


def _text_quoted(arguments: list[str], key: str | None) -> list[str]:
    """Quotes the value of `key`, unless it is quoted, stands for none, or lists what a multirun goes through."""
    if key is None or {"-m", "--multirun"} & set(arguments):
        return arguments
    start = f"{key}="
    values = {argument: argument[len(start) :] for argument in arguments if argument.startswith(start)}
    free = {
        argument: value for argument, value in values.items() if value != "null" and value[:1] not in ("", '"', "'")
    }
    return [f"{start}{quoted(free[argument])}" if argument in free else argument for argument in arguments]


def _flags_first(arguments: list[str]) -> list[str]:
    """Moves --multirun to the front: Hydra's parser refuses overrides on both sides of a flag."""
    flags = [argument for argument in arguments if argument in ("-m", "--multirun")]
    return flags[:1] + [argument for argument in arguments if argument not in flags]


def processes_started() -> int:
    """Returns how many processes of this command torchrun or srun has started, 1 where neither did."""
    count = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or "1"
    return int(count) if count.isdigit() else 1


def _refuse_folders_apart(arguments: list[str]) -> None:
    """Ends the command where torchrun or srun started it several times, and each would make a folder of its own."""
    count = processes_started()
    named = any(argument.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for argument in arguments)
    if count > 1 and not named and not any(word.startswith("-") for word in arguments):
        stop(f"{count} processes were started, whose folder must be the same: name it, hydra.run.dir=outputs/NAME")


def _forget_folder() -> None:
    """Removes the folder that Hydra made for this run alone: one with the time in its name, and Hydra's files in it."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    chosen = any(override.startswith("hydra.run.dir=") for override in hydra_config.overrides.hydra)
    folder = Path(hydra_config.runtime.output_dir)
    own = {".hydra", f"{hydra_config.job.name}.log"}
    if chosen or hydra_config.mode != RunMode.RUN or not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= own:
        shutil.rmtree(folder, ignore_errors=True)


def _bad_file(error: Exception) -> str:
    """Returns what a BadFile says that a loader process or a rank raised, whose error quotes it; else nothing."""
    _, marker, said = str(error).rpartition(f"{BadFile.__module__}.{BadFile.__name__}: ")
    return said.strip().splitlines()[0] if marker else ""
