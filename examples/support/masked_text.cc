// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/masked_text.h"

#include <torch/types.h>

#include "trireme/base/random.h"

namespace trireme::examples {

MaskedText mask(const TokenShards& tokens, const at::Tensor& numbers, std::int64_t context,
                std::int64_t round) {
  const std::int64_t vocab = tokens.vocab_size();
  const auto text = torch::empty({numbers.size(0), context}, torch::kLong);
  MaskedText sample{text, torch::empty_like(text), torch::zeros(text.sizes(), torch::kBool)};
  for (std::int64_t i = 0; i < numbers.size(0); ++i) {
    const auto number = numbers[i].item<std::int64_t>();
    auto* row = text[i].data_ptr<std::int64_t>();
    auto* shown = sample.shown[i].data_ptr<std::int64_t>();
    auto* hidden = sample.hidden[i].data_ptr<bool>();
    tokens.read(number * context, {row, static_cast<std::size_t>(context)});
    const RandomStream chance(static_cast<std::uint64_t>(round * 1'000'000 + number), "mask");
    for (std::int64_t t = 0; t < context; ++t) {
      const double kind = 10 * chance.uniform(static_cast<std::uint64_t>(2 * t + 1));
      hidden[t] = chance.uniform(static_cast<std::uint64_t>(2 * t)) < 0.15;
      const auto any = static_cast<std::int64_t>((kind - 8) * static_cast<double>(vocab));
      shown[t] = !hidden[t] || kind >= 9 ? row[t] : kind < 8 ? vocab : any;
    }
  }
  return sample;
}

}  // namespace trireme::examples
