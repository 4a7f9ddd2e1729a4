"""Distances between a model before and after, one file each: ``name(before, after) -> float``, 0 when nothing moved.

A file may declare ``INPUT``, what its function looks at; the caller gives it that.

========== ================================================= =====================================================
``INPUT``   arguments                                         meaning
========== ================================================= =====================================================
features    ``features_0, features_1``                        two encodings of the same images (if nothing is declared)
labelled    ``features_0, labels_0, features_1, labels_1``    two labelled sets of features, in one space
taps        ``taps_0, taps_1``                                activations at several depths, same images, same tower
theta       ``theta_0, theta_1``                              two state dicts of one architecture
========== ================================================= =====================================================
"""
