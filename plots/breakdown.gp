# breakdown.gp - parts of a step's time, stacked, relative to exact attention's whole step; view v_breakdown.
if (!exists("format")) format = "png"
load name.".vars"
bottom = 130
gap_y = 150
panel_width = 90 + 26 * x_tic_count
load "style.gp"
set xrange [0.4:x_tic_count + 0.6]
set xtics rotate by 45 right
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set yrange [0:above(p)]
    set title panel_title[p]
    set ylabel (is_left(p) ? "time relative to exact" : "")
    set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead dashtype 2 linecolor rgb "#000000" front
    plot for [b in panel_blocks[p]] file index int(b) using 1:(0.5 * ($3 + $4)):($1 - 0.36):($1 + 0.36):3:4 \
             with boxxyerror fillstyle solid 0.9 noborder linecolor rgb colour(block_style[int(b) + 1])
    unset label
}
eval legend_place
eval clear_panel
eval legend_boxes
unset multiplot
