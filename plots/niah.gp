# niah.gp - needle in a haystack: score by context length and needle depth, a panel per budget; view v_niah.
# Red, yellow, green as readers know it; the printed percentage serves those who do not tell them apart.
legend = 92
load "style.gp"
set palette defined (0 "#F0496E", 0.5 "#EBB839", 1 "#0CD79F")
set cbrange [0:100]
set cbtics 25 format "%.0f %%" scale 0
unset grid
set tics scale 0
set border 0
set style fill solid 1 border rgb "#ffffff"
set xrange [0.5:x_tic_count + 0.5]
set yrange [y_tic_count + 0.5:0.5]
set xtics rotate by (x_tic_count > 8 ? 90 : 0) right
eval "set xtics ".x_tics.(x_tic_count > 8 ? "" : " norotate center")
eval "set ytics ".y_tics
printed = x_tic_count * y_tic_count <= 120
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set title panel_title[p]
    set xlabel (is_bottom(p) ? "context length (tokens)" : "")
    set ylabel (is_left(p) ? "needle depth" : "")
    # The scale is drawn once, where other figures have the legend.
    if (p == 1) { set colorbox vertical user origin screen 1.0 - 80.0 / W, screen 1.0 * bottom / H \
                      size screen 16.0 / W, screen 1.0 * (H - top - bottom) / H } else { unset colorbox }
    plot for [b in panel_blocks[p]] file index int(b) \
             using 1:2:($1 - 0.5):($1 + 0.5):($2 - 0.5):($2 + 0.5):(100 * $3) with boxxyerror linecolor palette, \
         for [b in panel_blocks[p]] file index int(b) using 1:2:(printed ? sprintf("%.0f", 100 * $3) : "") \
             with labels font ",9" textcolor rgb "#202020"
    unset label
}
unset multiplot
