el círculo 0 está junto al 0
el círculo 1 está junto al 1
el círculo 2 está junto al 4
el círculo 3 está junto al 9
el círculo 4 está junto al 16
el círculo 5 está junto al 25
el círculo 6 está junto al 36
el círculo 7 está junto al 49
el círculo 8 está junto al 64
el círculo 9 está junto al 81
el círculo 10 está junto al 3
el círculo 11 está junto al 24
el círculo 12 está junto al 47
el círculo 13 está junto al 72
el círculo 14 está junto al 2
el círculo 15 está junto al 31
el círculo 16 está junto al 62
el círculo 17 está junto al 95
el círculo 18 está junto al 33
el círculo 19 está junto al 70
el círculo 20 está junto al 12
el círculo 21 está junto al 53
el círculo 22 está junto al 96
el círculo 23 está junto al 44
el círculo 24 está junto al 91
el círculo 25 está junto al 43
el círculo 26 está junto al 94
el círculo 27 está junto al 50
el círculo 28 está junto al 8
el círculo 29 está junto al 65
el círculo 30 está junto al 27
el círculo 31 está junto al 88
el círculo 32 está junto al 54
el círculo 33 está junto al 22
el círculo 34 está junto al 89
el círculo 35 está junto al 61
el círculo 36 está junto al 35
el círculo 37 está junto al 11
el círculo 38 está junto al 86
el círculo 39 está junto al 66
un "gato"
"entre comillas"
uno, dos; tres
barra \ y {llaves}
emoji 👩‍🚀 y ñandú
espacio duro y línea
