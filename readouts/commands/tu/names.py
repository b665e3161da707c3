"""Names: of the classification sets on the TU site, and of the node labels that their readmes publish."""

from __future__ import annotations

_ON_SITE = """
AIDS BZR BZR_MD COIL-DEL COIL-RAG COLLAB COLORS-3 COX2 COX2_MD Cuneiform DBLP_v1 DD DHFR DHFR_MD ENZYMES
ER_MD FIRSTMM_DB FRANKENSTEIN Fingerprint IMDB-BINARY IMDB-MULTI KKI Letter-high Letter-low Letter-med
MCF-7 MCF-7H MOLT-4 MOLT-4H MSRC_21 MSRC_21C MSRC_9 MUTAG Mutagenicity NCI-H23 NCI-H23H NCI1 NCI109 OHSU
OVCAR-8 OVCAR-8H P388 P388H PC-3 PC-3H PROTEINS PROTEINS_full PTC_FM PTC_FR PTC_MM PTC_MR Peking_1
REDDIT-BINARY REDDIT-MULTI-12K REDDIT-MULTI-5K SF-295 SF-295H SN12C SN12CH SW-620 SW-620H SYNTHETIC
SYNTHETICnew Synthie TRIANGLES TWITTER-Real-Graph-Partial UACC257 UACC257H Yeast YeastH deezer_ego_nets
github_stargazers reddit_threads twitch_egos
"""
SITE = tuple(_ON_SITE.split())

_IN_READMES = {
    "MUTAG": "C N O F I Cl Br",
    "Mutagenicity": "C O Cl H N F Br S P I Na K Li Ca",
    "PTC_MR": "In P O N Na C Cl S Br F K Cu Zn I Ba Sn Pb Ca",
}
NODE_LABELS = {name: tuple(labels.split()) for name, labels in _IN_READMES.items()}
