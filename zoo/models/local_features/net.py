"""Keypoints and their descriptors, by OpenCV."""

from __future__ import annotations

from typing import Any

import numpy as np

DESCRIPTORS = {"rootsift": 128, "sift": 128, "orb": 256}  # dimension


def detector_of(descriptor: str, max_keypoints: int) -> Any:
    """Returns OpenCV's detector for a descriptor; deterministic."""
    import cv2

    # SIFT would rank keypoints itself, but then returns more of them where responses tie.
    return cv2.ORB_create(nfeatures=max_keypoints) if descriptor == "orb" else cv2.SIFT_create()


def describe(image: np.ndarray, detector: Any, descriptor: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the keypoints (K, 2), x and y in px, and descriptors (K, D) of an RGB image (H, W, 3) uint8, K <= count.

    Those with the strongest response, strongest first. An image's upper left corner is 0, 0, so that the centre of its
    first pixel is 0.5, 0.5. RootSIFT (Arandjelović and Zisserman 2012) is the square root of the L1-normalised SIFT;
    the bits of ORB are numbers 0 and 1, so that squared Euclidean distances are Hamming distances.
    """
    import cv2

    points, found = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    if not points:
        return np.zeros((0, 2), np.float32), np.zeros((0, DESCRIPTORS[descriptor]), np.float32)
    order = np.argsort([-point.response for point in points], kind="stable")[:count]
    places = np.array([points[place].pt for place in order], np.float32) + 0.5
    return places, _prepared(found[order], descriptor)


def _prepared(found: np.ndarray, descriptor: str) -> np.ndarray:
    if descriptor == "orb":
        return np.unpackbits(found, axis=1).astype(np.float32)
    if descriptor == "sift":
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
    return np.sqrt(found / np.maximum(found.sum(axis=1, keepdims=True), 1e-6))
