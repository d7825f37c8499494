"""What pyproject.toml cannot say: the wheel holds the worker's kernels, so it is of a platform and needs a compiler."""

import platform
import runpy
import shutil
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

KERNELS = Path("worker/glm_worker/kernels/cpu")
GLIBC = "2_28"


class BuildWithKernels(build_py):
    """Build the library beside its sources, and copy it to where the wheel is made of."""

    def run(self) -> None:
        super().run()
        building = runpy.run_path(str(KERNELS / "build.py"))
        building["build"]()
        if not self.editable_mode:
            name = building["LIBRARY"].name
            folder = Path(self.build_lib, *KERNELS.parts[1:])
            shutil.copy2(KERNELS / name, folder / name)


class PlatformWheel(bdist_wheel):
    """Of one processor and any Python 3: the library is called by ctypes."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", f"manylinux_{GLIBC}_{platform.machine()}"


class WithLibrary(Distribution):
    """A distribution that is not the same on every platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=WithLibrary,
    cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel},
)
