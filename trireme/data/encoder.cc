// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/encoder.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "trireme/data/merge_table.h"
#include "trireme/data/split.h"
#include "trireme/data/tokenizer_impl.h"
#include "trireme/data/word_cache.h"

namespace trireme {
namespace {

// Tokens on their way to the caller's vector: writing here needs no check per token.
class TokenBuffer {
 public:
  explicit TokenBuffer(std::vector<TokenId>& out) : out_(out) {}

  // Appends count <= 4 of the four tokens at tokens.
  void put_upto4(const TokenId* tokens, std::uint32_t count) {
    if (used_ > kTokens - 4) [[unlikely]] {
      flush();
    }
    std::memcpy(tokens_.data() + used_, tokens, 4 * sizeof(TokenId));
    used_ += count;
  }
  void put(std::span<const TokenId> tokens) {
    if (used_ + tokens.size() > kTokens) {
      flush();
    }
    if (tokens.size() > kTokens) {
      out_.insert(out_.end(), tokens.begin(), tokens.end());
      return;
    }
    std::copy(tokens.begin(), tokens.end(), tokens_.begin() + static_cast<std::ptrdiff_t>(used_));
    used_ += tokens.size();
  }
  void flush() {
    out_.insert(out_.end(), tokens_.begin(), tokens_.begin() + static_cast<std::ptrdiff_t>(used_));
    used_ = 0;
  }

 private:
  static constexpr std::size_t kTokens = 2048;  // 8 KiB, a quarter of a first-level cache
  std::array<TokenId, kTokens> tokens_;
  std::size_t used_ = 0;
  std::vector<TokenId>& out_;
};

}  // namespace

struct Encoder::Impl {
  explicit Impl(const Tokenizer::Impl& tokenizer)
      : merger(tokenizer.merges, tokenizer.byte_tokens) {}

  void put_short(const ShortWord& key, std::string_view word, TokenBuffer& out) {
    const ShortWordCache::Slot* slot = short_words.find(key);
    if (slot == nullptr) [[unlikely]] {
      slot = short_words.insert(key, merger.merge(word));
    }
    if (slot->count <= ShortWordCache::kInlineTokens) [[likely]] {
      out.put_upto4(slot->tokens.data(), slot->count);
    } else {
      out.put(short_words.tokens_of(*slot));
    }
  }
  void put_long(std::string_view word, TokenBuffer& out) {
    if (word.size() > LongWordCache::kMaxBytes) {
      out.put(merger.merge(word));
      return;
    }
    std::span<const TokenId> tokens = long_words.find(word);
    if (tokens.empty()) {
      tokens = merger.merge(word);
      long_words.insert(word, tokens);
    }
    out.put(tokens);
  }
  WordMerger merger;
  ShortWordCache short_words;
  LongWordCache long_words;
};

Encoder::Encoder(const Tokenizer& tokenizer) : Encoder(tokenizer.impl()) {}
Encoder::Encoder(const Tokenizer::Impl& tokenizer) : impl_(std::make_unique<Impl>(tokenizer)) {}
Encoder::~Encoder() = default;

void Encoder::encode(std::string_view text, std::vector<TokenId>& ids) {
  TokenBuffer out(ids);
  split_words(text, [&](std::size_t begin, std::size_t end) {
    const std::string_view word = text.substr(begin, end - begin);
    if (word.size() <= ShortWord::kMaxBytes) [[likely]] {
      const ShortWord key = text.size() - begin >= 16 ? ShortWord::load16(word.data(), word.size())
                                                      : ShortWord::load(word);
      impl_->put_short(key, word, out);
    } else {
      impl_->put_long(word, out);
    }
  });
  out.flush();
}

}  // namespace trireme
