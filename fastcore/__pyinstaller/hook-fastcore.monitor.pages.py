"""The files of the monitor's page, for whoever freezes a program that has one."""

from PyInstaller.utils.hooks import collect_data_files

datas = collect_data_files("fastcore.monitor")
