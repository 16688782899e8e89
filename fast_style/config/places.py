"""What travels with the package: a config for each style, and the style images."""

from pathlib import Path

# Where runs land, below the working directory.
RUNS = Path("checkpoints")
# In the repository styles/ has this page; an installed package names its address.
_README = Path("styles", "README.md")
_PAGE = "https://github.com/fast-style/fast-style/blob/main/styles/README.md"


def _shipped(name: str) -> Path:
    """Return a shipped folder: inside the installed package, or beside it in the repository."""
    package = Path(__file__).parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


CONFIGS = _shipped("configs")
STYLES = _shipped("styles")


def config_names() -> list[str]:
    """List the configs that are shipped, by name."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def style_image(path: Path) -> Path:
    """Return `path`, or the shipped style image of that name where `path` is not there.

    `styles/wave.jpg`, as the shipped configs write it, is found from any working directory.
    """
    shipped = STYLES / path.name
    is_theirs = path.parent == Path("styles") and not path.exists() and shipped.is_file()
    return shipped if is_theirs else path


def source_of(path: Path) -> str:
    """Return the page that says where to get a style image that is not shipped, "" if none does."""
    if path.parent != _README.parent:
        return ""
    if _README.is_file():
        return str(_README)
    return _PAGE if path.stem in config_names() and not (STYLES / path.name).exists() else ""
