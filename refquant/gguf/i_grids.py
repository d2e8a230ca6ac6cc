"""The grids of the I-quants: the points of a small lattice that a group of 4 or 8 weights may take. Data only.

A grid is (levels, width, gaps). Its points are the rows of a table (points, width) of levels. Write a row as the number
sum(c[k] << bits * k), c[k] the index of column k in `levels`, bits 2 for three levels and 3 for eight: ggml's rows
ascend, so the gaps between neighbours (the first from 0) tell everything. `gaps` holds them as uint16, all low bytes,
then all high bytes, compressed by zlib and spelled in base85. `i_quants.grid` reads it.

Source   ggml/src/ggml-common.h, iq2xxs_grid, iq2xs_grid, iq2s_grid, iq3xxs_grid, iq3s_grid, iq1s_grid. IQ1_M shares the
         last one.
"""

GRIDS: dict[str, tuple[tuple[int, ...], int, str]] = {
    "IQ2_XXS": (
        (8, 25, 43),
        8,
        "c${NkVrFJyXXasIV-jcP;oxMJVd9X8XXatmb`i;7Qb?$0<`D#nu}LU0^N7R%X*FeW!3uT*7ljyBpok<;r&*27A)&WGb@B=-JgnIq5(ZpqOB8"
        "o=NU*Ay&+wWj_L`Z;z_Ffn_Qv&099FXOOv~kWF#QLLiLG)})~S#v*{~O4F$W(P(2@cLM|sv7ehWUK85|M`l9fVt7=db8cSmq49`-Ka;N)OW;"
        "Ha@ndi$TL;(PEKK@RUbC;splXv_#b?6H8Ao2h8uJ|+%x$0iYtiyuI~P*~vRS8A@Xh>7<zkBCfSY1Yx*N=m#2^B?({wtSbc*up>nFcK-lid&i"
        "yiyD|1Bap!;ir)ezthO*Bl(52ufP5x#Yz|~(WJIW9U}R=s1Dnjk003HUK5z",
    ),
    "IQ2_XS": (
        (8, 25, 43),
        8,
        "c-muNVrFJyXJ%q%2Qnm~G$*qRm}F&7go*%_K!kWWB$;^%AWTJO9#(Cxax_g$T#Cpl1mzo<dBmicoN6G(@UY4N4bf2G3TNgqaO5ag;K<`jL^F"
        "biOB~q<0}-Zdps@xD3t&R5>>@HiV+{_7nC@WaVbT*Zs$xxi9T5(-0;ESF5lC>z&Q^-kh-BuG6hGi7=$;|j6UD(KW@;>TOrt^~iH!->?J(CN*"
        "~}^%4>Vs~`~WmOz^=(<<`I#JO5?KP*$7g?&o@udm`8H<A4C8dG=hSLX`f44I4A@Z6cyq*DmZ4kTgHp%@_RO_F*(<O4B}H!4p&k0$P@czz#1Q"
        "$x%;6X-#kPB7%-_Zg@gPp$gx}@fk}=7=np1lZ3WG8m&D?rX&kbqYD{WzGI1PyLO>Y<F})fkr%%S^toA${7t@*63xqB{<Gp~1jY*8FY$Jzn6c"
        "d|Ln8Je43&uraOl%b#F%3+Mn9?N~C<cs_t7E0W2u8x@Fyb^qltNFU2(uEQ5yoX?MG}DsG7)qUBUY2ptcELM!saGMFhl|XLe@(Q",
    ),
    "IQ2_S": (
        (8, 25, 43),
        8,
        "c-qZV&r1S96n1BLt~(4$hgR1XwI4<pffPhVbm$OBHzC$S*y<2PKkyPkbTQ~Zh;E*RZguMr_^0(|XJ?%??I8W~;EZqH``-6`@0lQ!5|a{Y;>8"
        "J13(stDasV$1y5W-vn8^v{v?-HVHi#|)u(Usbp}<{PXazMg2wFpl&5uGLai6BV6?KGcKNT{zC;C&XC=)ZS37Srl`Pyl}d0v%DT`b-@CRX;oq"
        "+kL^bWWG_&Lc?b0l`#Ju2#HIX;D4iMOn`JF|XRsx+>I>aT$|}cu}|-;IUki<oOyY>?`AjG_&(<?C5kQ=ZzAAJY46t=g3V+QK-$wrofdEmNu8"
        "TI$<q$p-+CKXP>RWRS3Nc%qTa}RsDTVf3?r?s}~>Cz)Zey+R3(uJ@?_;!k}LCo6QTedd|fxTFSyz`ozgOM_#)=XdqQqs9Zf>QogrxTFLo-kc"
        "`XXswL#X@@PbG7>);Eipz^4SsccZ-3TE)Il#J4H_Pv<WTE6sJg&<QQdk#@P7Ve<Y*_wIp(Es;c{OXRCH{yhoJ2kKRPLm3lNw2}NW5B`YC3Cg"
        "h1=KVdt#I1;Y{MYKgM5z!GDlpd@oC5oRrD`GEd_tXJ(9<1LIT~>X`fmk}w8l6g1$=B15nK07}YE2m",
    ),
    "IQ3_XXS": (
        (4, 12, 20, 28, 36, 44, 52, 62),
        4,
        "cmd^&QBQ<05QMM8(gjMF3aveZcfg$_Xh@9s?3?;_@&ErDi+{sSCfS)xzBvFnNP)`-P<oj%u&Ij_GZ<89A+2DpozG1T(w%#co)E<C?Iaj=1T$"
        "WD&le3Ttuu68sO{>TjDID{$^l4d?nxEkgtW?frj;f+`l|neiI4kYu=$QK=#kstn)ajVw66Q14NLGwP}9vf%IUlFFq=ujErV<^7TU!@#^U*uw"
        "u|_)%H|-a@jO52?`eKpWCK*|*6O9t@2!N%4QM|P|NMRdlN}G4",
    ),
    "IQ3_S": (
        (1, 3, 5, 7, 9, 11, 13, 15),
        4,
        "cwX(1*-is73`NQHHsfqF?X+}Qq#}?Iyd(bq&v43TKwc6@_PxjUT}p(M5`e@ipm+$3X#8<vA_iM!(Zom;A+e66N|Q3dK+33K${bH6?T&)TXLQ"
        "Mgwsynqr}B2w99H3g2AVa6Ba4w5n!;&NC^`8+2))FzY7V3d3zE|<v%fP{JPy#pt4_a?7*e4;?iyVYlm>rPT!<WEaQ5hjcpjzNvd(10JDJQi<"
        "vKz9i8rpu@?b;I#xw}76JP<cI7bj2?#2>sGg#ZC!nP_`i#qpuJYEAgzeXqFZ??EZwMv8=MA)U178wluibGC&fxqnQc9EQQ*N}|5659yo`Kq&"
        "v)_Y04N{QhVFK^|D?<?B(nCxj;?D>4qEIJkGU#&OVx6|VXzL@4nD7skgcp96tb-z$M$Eq)%%k}>K?*IJh^8;e|55W",
    ),
    "IQ1_S": (
        (-1, 0, 1),
        8,
        "c-qxf?QYvf5X|idc_h!Gh1R7loh%!0;G_=nI!Y}93edoD?HGNAzIkWwNJ(z<&jI8J5Og1VyR);it2e|<r8HE~JTSF$EE?P0I&9fBQMqC*nP_"
        "46>+yabe4`x}rAUdNuegjpXzf1u(6e(b4m#DsVa=t5>5c`lZ2PG1IN-=T<rrAM?!4*_!WuV?i>(tZ-T_V6kM3n|PSf_zB})zl)(LDI>G8nA0"
        "(}GuM+QTe6At`ji59qFs%dFy^~w!^dYy}-j1jj{OELJ^%O6I<HWRFx<k6+Wj>s|PR9!)w@;661OE+*s&a>S|@!aaYw$boudPPRU^pOxk7G$B"
        "5AJwIINI?1X(S**2bc`{TyUYZz3{;F;BP}dQL#BG!6dd|;TVmx9$KARGrOTWu1@NF=zJ%br%py)NEr0kyMh%q#^=+J=Q(fQf3c*tg{u{m<kI"
        "<KRYs!fT+_?2{l>+Y-R@*BJ3eO+a>#b3MkVY8CK_jj)o>3sUaerEo;*_=4i)PyYD#wEvss=MPY5?t%8>^(+rC*~wQSbO{%Pc&vM4FTuG;BJ="
        "snKvI5HMnGf@rfSOJgEc2Tb+iq!2TsnQEB@g%**Ru$$r2N3!H=y_xn|LuwH;#|?aruW7!|qJoQ3k@W!8JW{^kGg#(4RwyOBoDZ2*e1STPt3S"
        "JtbCaw`2qq`%GPKTT9+A7QGFZ1S*&*CE?D!hKWZWd)R#?#>-_iP1@{=88Ipeev^|n|i@LW~%TqgvA4=`#H-qk6@|EGQ`;?s+;ks~eCK@!Lk2"
        "PT=W@<}LPl6Zrrb|pSNY5OFi;Dpg*s1sJR!rM%^SH5<NhV*Ztyl==ufUQfTZ*18m&d5-hCi>K}d^0MD6A=sKZ}Y$a+?Js!$f2}3Jt~w>(ZDr"
        ")ltS_isX?x#kD;8b0m3BIfmy1Cx}H+epn`I*^d5$AR6AKrgu?CEG^WsJZDZRAV={^%gNQ!fn~K-yzpeEHM&^;2{%-W%Ly5uSj~$RymnX{PQI"
        "l5;9DyEX9;&(@y>vEvgLGRA);xK3*|_4%>9eWK^!r|uqlEbTu-0|++(N_5vx;@vxGd-;1x|g|Tdd`PiepQ^e6nWZ$*dkU1bbLpBm0$(6W5El"
        "?t41oDhs}_O0Q4^DT^c~>-NAiQs>D*NIkNMs2$2ty9=9Dn~Wk&=h;>$HWoYk=R&<U$H&W*O?73B_^?j`UvF7}mf`jT`}E&;*^uyG1r=5G-=X"
        "+7Y7k`nvxxr;EDVDn<ave;c(OEPN!BFf>8e(fCyk=HeipsONRO?WysnFfoyoRJZ+_Ir9qchadQkL-h^L1I@iP1;ufAF@kD#v~;!llEUoW(m2"
        "01x6f*-+=9z2PkD_wVx=l=pXzflD",
    ),
}
