// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/generator.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/base/random.h"

namespace trireme {
namespace {

// Length of the longest prefix of text that does not end inside a UTF-8 character. A sequence that
// is already invalid is let through.
std::size_t whole_characters(std::string_view text) {
  constexpr std::size_t kMaxCharacterBytes = 4;
  const std::size_t look_back = std::min(kMaxCharacterBytes, text.size());
  for (std::size_t back = 1; back <= look_back; ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;  // inside a character
    const std::size_t needed = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return needed > back ? text.size() - back : text.size();
  }
  return text.size();
}

// Ids by falling logit, ties by id; only the first count need be in order.
std::vector<TokenId> most_probable(const float* logits, std::size_t size, std::size_t count) {
  std::vector<TokenId> ids(size);
  std::iota(ids.begin(), ids.end(), TokenId{0});
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(),
                    [logits](TokenId a, TokenId b) {
                      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
                    });
  ids.resize(count);
  return ids;
}

at::Tensor token_tensor(const std::vector<std::int64_t>& tokens) {
  at::Tensor result = at::empty({1, static_cast<std::int64_t>(tokens.size())},
                                at::TensorOptions().dtype(at::kLong));
  std::copy(tokens.begin(), tokens.end(), result.data_ptr<std::int64_t>());
  return result;
}

}  // namespace

void SamplingOptions::validate() const {
  if (!(temperature >= 0)) throw_error<ConfigError>("temperature is {}: 0 or above", temperature);
  if (top_k < 0) throw_error<ConfigError>("top-k is {}: 0 (all tokens) or above", top_k);
  if (!(top_p > 0 && top_p <= 1))
    throw_error<ConfigError>("top-p is {}: above 0, at most 1", top_p);
}

TokenId sample_token(const at::Tensor& logits, const SamplingOptions& options, double uniform) {
  const float* values = logits.data_ptr<float>();
  const auto size = static_cast<std::size_t>(logits.numel());
  if (options.temperature == 0) return most_probable(values, size, 1).front();
  const bool all = options.top_k == 0 || static_cast<std::size_t>(options.top_k) >= size;
  const std::vector<TokenId> ids =
      most_probable(values, size, all ? size : static_cast<std::size_t>(options.top_k));

  std::vector<double> weights(ids.size());
  const double top = values[ids.front()];
  double total = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    weights[i] = std::exp((values[ids[i]] - top) / options.temperature);
    total += weights[i];
  }
  // The shortest prefix that reaches top_p of the probability.
  std::size_t kept = 0;
  double kept_total = 0;
  while (kept < ids.size() && (kept == 0 || kept_total < options.top_p * total)) {
    kept_total += weights[kept++];
  }
  double left = uniform * kept_total;
  for (std::size_t i = 0; i < kept; ++i) {
    left -= weights[i];
    if (left < 0) return ids[i];
  }
  return ids[kept - 1];
}

Generator::Generator(nn::TransformerImpl& model, const Tokenizer& tokenizer,
                     const SamplingOptions& options)
    : Generator(
          [&model, cache = nn::KvCache()](const at::Tensor& tokens_BT, bool restart) mutable {
            if (restart) cache = nn::KvCache();
            const c10::Device device = model.parameters().front().device();
            return model.decode(tokens_BT.to(device), cache).to(at::kCPU);
          },
          model.config().context, tokenizer, options) {}

Generator::Generator(Decode decode, std::int64_t context, const Tokenizer& tokenizer,
                     const SamplingOptions& options)
    : decode_(std::move(decode)),
      context_(static_cast<std::size_t>(context)),
      tokenizer_(tokenizer),
      options_(options) {
  options_.validate();
}

// A full context is cut to its second half first.
at::Tensor Generator::next_logits(std::vector<std::int64_t>& history, std::size_t& seen) {
  if (history.size() > context_) {
    history.erase(history.begin(), history.end() - static_cast<std::ptrdiff_t>(
                                                       std::max<std::size_t>(1, context_ / 2)));
    seen = 0;
  }
  const bool restart = seen == 0;
  const std::vector<std::int64_t> unseen(
      history.begin() + static_cast<std::ptrdiff_t>(std::exchange(seen, history.size())),
      history.end());
  return decode_(token_tensor(unseen), restart).squeeze(0).contiguous();
}

std::int64_t Generator::run(std::string_view prompt, std::int64_t max_tokens,
                            const std::function<bool(std::string_view)>& on_text) {
  const c10::NoGradGuard no_grad;
  const RandomStream random(options_.seed, "generate");
  std::vector<TokenId> prompt_ids;
  tokenizer_.encode(prompt, prompt_ids);
  std::vector<std::int64_t> history{tokenizer_.end_of_text()};
  history.insert(history.end(), prompt_ids.begin(), prompt_ids.end());

  std::size_t seen = 0;
  std::string pending;
  std::int64_t made = 0;
  while (made < max_tokens) {
    const TokenId token = sample_token(next_logits(history, seen), options_,
                                       random.uniform(static_cast<std::uint64_t>(made)));
    if (token == tokenizer_.end_of_text()) break;
    ++made;
    history.push_back(token);
    pending += tokenizer_.token_bytes(token);
    const std::size_t whole = whole_characters(pending);
    if (whole > 0 && !on_text(std::string_view(pending).substr(0, whole))) return made;
    pending.erase(0, whole);
  }
  if (!pending.empty()) on_text(pending);
  return made;
}

}  // namespace trireme
