# crossover.gp - shortest context at which a whole block is faster than with exact attention; view v_crossover.
# No bar: slower at every measured context. Pale: already faster at the shortest measured one.
if (!exists("format")) format = "png"
load name.".vars"
bottom = 130
gap_y = 150
legend = 24
panel_width = 210 + 26 * x_tic_count
load "style.gp"
set boxwidth 0.7
set xrange [0.4:x_tic_count + 0.6]
set xtics rotate by 45 right
tint(b) = block_dash[int(b) + 1] == 2 ? 0.35 : 0.9
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set yrange [0:above(p)]
    set title panel_title[p].":  pale = already faster at the shortest measured context"
    set ylabel (is_left(p) ? "crossover context (Ki tokens)" : "")
    plot for [b in panel_blocks[p]] file index int(b) using 1:2 with boxes \
             fillstyle solid tint(b) linecolor rgb colour(block_style[int(b) + 1])
    unset label
}
unset multiplot
