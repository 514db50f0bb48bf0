"""The course's website: `python -m peftlab.course.site build`, or `make book`. Offline, warnings are errors.

    build.py         stage, run Jupyter Book, check, put the new site in the old one's place
    lessons.py       from a built notebook to its page: actions, hints and solutions, sleeping controls
    pages.py         pages made from data: all lessons, builds, stored results, the table of contents
    bibliography.py  how references.bib is set, a Sphinx extension
    links.py         links between files of the repository become links between pages
    check.py         what is wrong with a finished site
"""
