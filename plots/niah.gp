# niah.gp - needle in a haystack: score by context length and needle depth, a panel per budget; view v_niah.
# Red, yellow, green as readers know it; the printed percentage serves those who do not tell them apart.
legend = 92
load "style.gp"
set palette defined (0 "#F0496E", 0.5 "#EBB839", 1 "#0CD79F")
set cbrange [0:100]
unset colorbox
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
    plot for [b in panel_blocks[p]] file index int(b) using 1:2:($1 - 0.5):($1 + 0.5):($2 - 0.5):($2 + 0.5):(100 * $3) \
             with boxxyerror linecolor palette, \
         for [b in panel_blocks[p]] file index int(b) using 1:2:(printed ? sprintf("%.0f", 100 * $3) : "") \
             with labels font ",9" textcolor rgb "#202020"
    unset label
}
# The scale, where other figures have the legend.
eval legend_place
eval clear_panel
set lmargin at screen 1.0 - 70.0 / W; set rmargin at screen 1.0 - 50.0 / W
set yrange [0:100]; set xrange [0:1]
unset key
set ytics 0, 25, 100 format "%.0f %%" offset 9.5, 0 left
plot "+" using (0.5):(0):(0):(1):(0):(0):(0) with boxxyerror linecolor palette notitle, \
     for [i = 0:49] "+" using (0.5):(i * 2 + 1):(0):(1):(i * 2):(i * 2 + 2):(i * 2 + 1) every ::0::0 with boxxyerror \
         fillstyle solid 1 noborder linecolor palette
unset multiplot
