// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Text in which tokens are hidden, for a masked language model (Devlin et al. 2019, section 3.1).
//
//   const MaskedText sample = mask(train, numbers, 64, step);
//   loss = cross_entropy(model(sample.shown, sample.hidden), sample.text.index({sample.hidden}));
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trireme/data/token_shards.h"

namespace trireme::examples {

struct MaskedText {
  at::Tensor text;    // [B, T] i64
  at::Tensor shown;   // the same with some tokens hidden
  at::Tensor hidden;  // [B, T] bool: which
};

// Samples numbers ([B] i64) of the tokens, where sample n is [n context, (n + 1) context). Of 15 %
// of the tokens four fifths become vocab_size() (the mask), a tenth any token, a tenth stays: a
// pure function of the round and the number. Throws as TokenShards::read() does.
MaskedText mask(const TokenShards& tokens, const at::Tensor& numbers, std::int64_t context,
                std::int64_t round);

}  // namespace trireme::examples
