"""The stages of a study: each reads files, calls lower packages, and writes files.

Every function here is the whole content of one script of the workflow.  It takes plain paths and values, so a stage
can also be run from Python or a test.
"""
