// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Words to their tokens: the encoder's memory. Internal to trireme/data.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/data/tokenizer.h"

namespace trireme {

// A word of 1 to 15 bytes, as two machine words: the bytes, zeros, and the length in the last byte.
struct ShortWord {
  static constexpr std::size_t kMaxBytes = 15;

  std::uint64_t low = 0;
  std::uint64_t high = 0;  // never 0

  // Reads 16 bytes from word.
  static ShortWord load16(const char* word, std::size_t length) {
    ShortWord key;
    std::memcpy(&key.low, word, 8);
    std::memcpy(&key.high, word + 8, 8);
    key.low &= kMasks[length].low;
    key.high = (key.high & kMasks[length].high) | (std::uint64_t{length} << 56);
    return key;
  }
  static ShortWord load(std::string_view word) {
    std::array<char, 16> padded{};
    std::memcpy(padded.data(), word.data(), word.size());
    return load16(padded.data(), word.size());
  }

  // The high half of a 128-bit product mixes all bits of both (as in wyhash).
  std::uint64_t hash() const {
    const auto product =
        static_cast<unsigned __int128>(low ^ 0x9E3779B97F4A7C15) * (high ^ 0xD1B54A32D192ED03);
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  }
  bool operator==(const ShortWord&) const = default;

 private:
  struct Mask {
    std::uint64_t low, high;
  };
  static constexpr std::array<Mask, 16> kMasks = [] {
    static_assert(std::endian::native == std::endian::little);
    std::array<Mask, 16> masks{};
    for (std::size_t length = 0; length < masks.size(); ++length) {
      const auto ones = [](std::size_t bytes) {
        return bytes >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * bytes)) - 1;
      };
      masks[length] = {ones(length), length > 8 ? ones(length - 8) : 0};
    }
    return masks;
  }();
};

// Short words and their tokens, in two levels. In front a direct-mapped table that a second-level
// cache holds, with the words used last: 95 to 97 % of the look-ups end there in source code.
// Behind it all words, in open addressing with linear probing, at most half full; that one grows up
// to a bound and then starts again empty.
class ShortWordCache {
 public:
  static constexpr std::size_t kInlineTokens = 3;

  struct alignas(32) Slot {
    ShortWord word;                             // high == 0: free
    std::array<TokenId, kInlineTokens> tokens;  // or, when count is larger, tokens[0]: the place in
                                                // the arena
    std::uint32_t count;
  };

  ShortWordCache();

  // The word's slot, or null. Lives until the next find() or insert().
  const Slot* find(const ShortWord& word) {
    const std::uint64_t hash = word.hash();
    Slot& front = front_[hash >> (64 - kFrontBits)];
    return front.word == word ? &front : find_behind(word, hash, front);
  }
  std::span<const TokenId> tokens_of(const Slot& slot) const {
    return slot.count <= kInlineTokens
               ? std::span<const TokenId>(slot.tokens.data(), slot.count)
               : std::span<const TokenId>(arena_).subspan(slot.tokens[0], slot.count);
  }
  // The slot of the word, which was not there. Lives like find()'s.
  const Slot* insert(const ShortWord& word, std::span<const TokenId> tokens);

 private:
  static constexpr int kFrontBits = 13;  // 8192 slots, 256 KiB

  const Slot* find_behind(const ShortWord& word, std::uint64_t hash, Slot& front);
  void resize(std::size_t num_slots);
  void place(const Slot& slot);

  std::vector<Slot> front_;
  std::vector<Slot> slots_;
  std::vector<TokenId> arena_;
  std::size_t used_ = 0;
  std::size_t mask_ = 0;
  int shift_ = 0;
};

// Words above ShortWord::kMaxBytes, up to kMaxBytes, by XXH3 hash and their bytes. Bounded like the
// other.
class LongWordCache {
 public:
  static constexpr std::size_t kMaxBytes = 256;

  LongWordCache();

  // Empty when the word is not there. Valid until the next insert().
  std::span<const TokenId> find(std::string_view word) const;
  void insert(std::string_view word, std::span<const TokenId> tokens);

 private:
  struct Slot {
    std::uint64_t hash = 0;
    std::uint32_t bytes_at = 0, num_bytes = 0;  // num_bytes == 0: free
    std::uint32_t tokens_at = 0, num_tokens = 0;
  };

  void resize(std::size_t num_slots);

  std::vector<Slot> slots_;
  std::string bytes_;
  std::vector<TokenId> tokens_;
  std::size_t used_ = 0;
};

}  // namespace trireme
