# step_time.gp - time of a denoising forward by method configuration at the longest context; view v_latency.
# Left, pale: the first step of a block, with selection; right, solid: a later step. Medians; bars: p10 to p90.
if (!exists("format")) format = "png"
load name.".vars"
bottom = 150
legend = 24
panel_width = 90 + 34 * x_tic_count
load "style.gp"
set boxwidth 0.38
set xrange [0.3:x_tic_count + 0.7]
set xtics rotate by 45 right
gap_y = 150
shift(b) = block_dash[int(b) + 1] == 2 ? -0.2 : 0.2
tint(b) = block_dash[int(b) + 1] == 2 ? 0.35 : 0.9
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set yrange [0:above(p)]
    set title panel_title[p].":  pale = first step, solid = later steps"
    set ylabel (is_left(p) ? "time per denoising forward (ms)" : "")
    plot for [b in panel_blocks[p]] file index int(b) using ($1 + shift(b)):2 with boxes \
             fillstyle solid tint(b) linecolor rgb colour(block_style[int(b) + 1]), \
         for [b in panel_blocks[p]] file index int(b) using ($1 + shift(b)):3:(0):($4 - $3) with vectors heads \
             size screen 0.003, 90 linewidth 0.9 linecolor rgb "#222222"
    unset label
}
unset multiplot
