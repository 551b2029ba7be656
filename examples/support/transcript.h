// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a net for speech has written, and how far that is from what was said.
//
//   edits(transcript(logits.argmax(0)), "seven");  // 1 for "sevn"
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>

namespace trireme::examples {

// The likeliest letter of each frame ([T] i64; 0: none, 1: a, 2: b, ...), where one that lasts
// several frames counts once (Graves et al. 2006, best path decoding).
std::string transcript(const at::Tensor& best);

// The least number of letters to insert, to drop and to change (Levenshtein 1965).
std::size_t edits(const std::string& from, const std::string& to);

}  // namespace trireme::examples
