# memory.gp - device memory against context: the peak, and of it the method's index; view v_memory.
# GiB and MiB as the panels say; each method at its largest budget.
load "style.gp"
@log_x
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set title panel_title[p]
    set xlabel (is_bottom(p) ? "context (tokens)" : "")
    set ylabel ""
    set yrange [0:above(p)]
    plot for [b in panel_blocks[p]] file index int(b) using 1:2 with linespoints \
             linewidth width(block_style[int(b) + 1]) dashtype dashes(block_dash[int(b) + 1]) \
             pointtype marker(block_style[int(b) + 1]) linecolor rgb colour(block_style[int(b) + 1])
    unset label
}
eval legend_place
eval clear_panel
eval legend_lines
unset multiplot
