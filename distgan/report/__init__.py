"""Run folders as HTML pages without scripts, links or external requests.

The page contains its style, pictures, sounds and curves. All text of files reaches it through
templates that escape it. May import core, config, monitor, runs and outputs; imports no torch.

page          the sections of a page as data, and the page from the templates
curves        the curves as SVG drawings: which there are, and what is special about some
comparison    several runs on one page: curves over each other, samples, what differs
plotting      lines, axes, healthy ranges and legends of one drawing
media         sample pictures, results, sounds and the first lines of tables, embedded as data
score_tables  the tables of image scores and of measures of held-out clips
judgement     the scores of one evaluation in words
formatting    numbers and times as text
templates/    the HTML and its style
"""
