// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Byte-level BPE: training, encoding, decoding. Lossless on any bytes.
//
//   const Tokenizer tokenizer = train_tokenizer(sample_text, {.vocab_size = 8192});
//   tokenizer.save("tokenizer.json");                          // Hugging Face's format
//   std::vector<TokenId> ids;  tokenizer.encode(text, ids);
//   std::string back = tokenizer.decode(ids);                  // == text
//
// Method: Sennrich et al. 2016 (BPE) over bytes with GPT-2's split pattern (Radford et al. 2019).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

using TokenId = std::uint32_t;

struct TokenizerTrainOptions {
  // Tokens in all: 256 bytes, 1 end of text, the rest merges. Fewer come out when the text has no
  // more pairs to merge.
  std::int64_t vocab_size = 8192;
  // A pair that occurs less often is never merged.
  std::int64_t min_pair_count = 2;
};

// Constant after construction; any thread may use it.
class Tokenizer {
 public:
  // Reads Hugging Face's tokenizer.json as save() writes it and as GPT-2's is published (model BPE,
  // byte level). Throws DataError: missing, not such a file (what differs), inconsistent merges.
  static Tokenizer load(const std::string& path);
  static Tokenizer parse(std::string_view json, const std::string& name);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  std::int64_t vocab_size() const;
  // Ends each document; never the result of encoding text.
  TokenId end_of_text() const;
  // xxh3-64 over vocabulary and merges, 16 hex digits: stands in token shards and checkpoints.
  const std::string& hash() const;

  // Appends the tokens of text. Text that looks like a special token is encoded as plain bytes.
  void encode(std::string_view text, std::vector<TokenId>& ids) const;
  // The bytes of the tokens, one after the other. Throws DataError on an id outside the vocabulary.
  std::string decode(std::span<const TokenId> ids) const;
  // The bytes of one token.
  std::string_view token_bytes(TokenId id) const;

  std::string to_json() const;
  void save(const std::string& path) const;  // whole or not at all

  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<const Impl> impl_;
};

// Learns merges from the texts. Deterministic: ties go to the pair with the smaller ids. A pair
// whose bytes are already a token is never merged. Throws ConfigError when vocab_size is below 257
// or min_pair_count below 1, DataError when the texts are empty. progress, where given, hears the
// merges learned and wanted, before the first and after each one.
Tokenizer train_tokenizer(std::span<const std::string_view> texts,
                          const TokenizerTrainOptions& options);
Tokenizer train_tokenizer(std::span<const std::string_view> texts,
                          const TokenizerTrainOptions& options,
                          const std::function<void(std::int64_t, std::int64_t)>& progress);

}  // namespace trireme
