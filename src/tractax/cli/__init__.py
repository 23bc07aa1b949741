"""The command line: `tractax predict | list | verify | plot`. Parses, calls the library, prints."""

import os
import sys
import warnings


def main() -> None:
    """The entry point. Bad input ends in one line on standard error and exit code 2."""
    try:
        import tyro
    except ImportError:
        sys.exit('tractax: the command line needs an extra: pip install "tractax[cli]"')
    import jax

    from ._catalogue import list_systems, plot, verify
    from ._predict import predict

    jax.config.update("jax_enable_x64", True)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"tractax: {message}", file=sys.stderr)
            tyro.extras.subcommand_cli_from_dict(
                {"predict": predict, "list": list_systems, "verify": verify, "plot": plot},
                prog="tractax",
                description="Exactly solvable models of learning: predict a training run, check the catalogue, draw it.",
            )
    except (ValueError, OSError, ImportError) as error:
        print(f"tractax: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("tractax: interrupted", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # A simulation goes on in a thread of XLA, and would crash an interpreter that shuts down around it.
        os._exit(130)
