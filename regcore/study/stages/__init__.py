"""The stages of a study: each reads files, calls the rooms below, and writes files.

Every function here is the whole content of one script of the workflow and takes plain paths and values,
so that a stage can also be run from Python or a test.
"""
