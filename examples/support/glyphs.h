// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Pictures of the letters A to J in the fonts of this machine: a data set of images that any
// machine can make, after notMNIST (Y. Bulatov, 2011).
//
//   const ImageSplits letters = draw_glyphs({});
//
// Fonts that are held out are never seen in training, by whole families: "Open Sans" in bold is not
// new to who knows it in light. A family is what has the same first word in its name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "examples/support/labelled_images.h"

namespace trireme::examples {

struct GlyphOptions {
  // Searched for .ttf and .otf files, with all folders below; one that does not exist is passed by.
  std::vector<std::string> folders = {"/usr/share/fonts", "/usr/local/share/fonts"};
  std::int64_t num_train = 12000;
  std::int64_t num_held_out = 2000;
  double held_out_families = 0.25;  // of all families; one at least, and one stays for training
  std::uint64_t seed = 1;
};

struct FontFile {
  std::string path;
  std::string family;  // first word of the family's name
};

// The fonts below folders that can draw A to J, ascending by path. Files that FreeType cannot read,
// that are no outlines, or that have one of the letters twice or not at all are passed by.
std::vector<FontFile> find_fonts(const std::vector<std::string>& folders);

// Images [N, 1, 28, 28], ink 255 on 0; labels 0 for A to 9 for J, equally often. Picture n of a
// split is a pure function of the fonts, the seed and n: a family, one of its fonts, and a size, a
// turn, a slant and a shift at random. Throws DataError where there are fewer than two families, or
// a font that could be read ceases to be.
ImageSplits draw_glyphs(const GlyphOptions& options);

}  // namespace trireme::examples
