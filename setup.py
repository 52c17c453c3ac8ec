"""A shim: everything it says stands in settings.ini."""

from configparser import ConfigParser

from setuptools import find_packages, setup

cfg = ConfigParser(delimiters=["="])
cfg.read("settings.ini", encoding="utf8")
s = cfg["DEFAULT"]

setup(
    name=s["lib_name"],
    version=s["version"],
    description=s["description"],
    license="Apache-2.0",
    python_requires=f">={s['min_python']}",
    packages=find_packages(include=["emo_lib", "emo_lib.*"]),
    package_data={"emo_lib": ["*.pyi"]},
    install_requires=s["requirements"].split(),
    extras_require={
        "dev": s["dev_requirements"].split(),
        "signals": s["signals_requirements"].split(),
    },
    entry_points={"console_scripts": s["console_scripts"].split()},
    zip_safe=False,
)
