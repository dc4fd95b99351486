# pareto.gp - paired difference of the score to the reference against end-to-end speed-up; view v_pareto.
# One line a curve of v_curve, in the order of measured work; up and to the right is better.
load "style.gp"
set xrange [x_min - x_room:x_max + x_room]
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set title panel_title[p]
    set xlabel (is_bottom(p) ? "speed-up of a block over exact" : "")
    set ylabel (is_left(p) ? "paired difference of the score (points)" : "")
    set yrange [panel_low[p] - room(p):panel_high[p] + room(p)]
    set arrow 1 from graph 0, first 0 to graph 1, first 0 nohead dashtype 2 linecolor rgb "#888888" back
    set arrow 2 from first 1, graph 0 to first 1, graph 1 nohead dashtype 2 linecolor rgb "#888888" back
    plot for [b in panel_blocks[p]] file index int(b) using 1:2 with linespoints \
             linewidth width(block_style[int(b) + 1]) dashtype dashes(block_dash[int(b) + 1]) \
             pointtype marker(block_style[int(b) + 1]) linecolor rgb colour(block_style[int(b) + 1])
    unset label
}
eval legend_place
eval clear_panel
eval legend_lines
unset multiplot
