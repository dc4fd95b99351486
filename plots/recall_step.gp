# recall_step.gp - attention mass of the selection over that of the exact top k, by denoising step; view v_recall.
# A selection that is kept from an early step shows its age here.
load "style.gp"
set yrange [0:1.02]
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set xrange [panel_first[p] - 0.3:panel_last[p] + 0.3]
    set xtics whole(p)
    set title panel_title[p]
    set xlabel (is_bottom(p) ? "denoising step" : "")
    set ylabel (is_left(p) ? "mass recall" : "")
    plot for [b in panel_blocks[p]] file index int(b) using 1:2 with linespoints \
             linewidth width(block_style[int(b) + 1]) dashtype dashes(block_dash[int(b) + 1]) \
             pointtype marker(block_style[int(b) + 1]) linecolor rgb colour(block_style[int(b) + 1])
    unset label
}
eval legend_place
eval clear_panel
eval legend_lines
unset multiplot
