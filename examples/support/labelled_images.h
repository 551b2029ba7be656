// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the image example trains on, wherever it comes from: glyphs.h draws it, image_files.h reads
// it.
//
//   const ImageSplits images = draw_glyphs({});
//   const at::Tensor x = images.train.images.index_select(0, numbers).to(at::kFloat) / 255;
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace trireme::examples {

inline constexpr std::int64_t kNumImageClasses = 10;

struct LabelledImages {
  at::Tensor images;  // [N, C, H, W] u8
  at::Tensor labels;  // [N] i64, below kNumImageClasses
};

struct ImageSplits {
  LabelledImages train;
  LabelledImages held_out;
};

}  // namespace trireme::examples
