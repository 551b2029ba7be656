// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Text into words: the pieces inside which byte-pair encoding merges.
//
// The words are what GPT-2's pattern matches one after the other (Radford et al. 2019):
//
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//
// Every byte belongs to exactly one word. A byte that is not part of well-formed UTF-8 counts as
// one character that is neither letter, number nor white space.
//
// Method. word_end() is the pattern, one word at a time, for any text. split_words() takes blocks
// of 64 ASCII bytes together: the vector unit turns a block into one bit mask per class, and the
// words' first bytes come out of a few operations on masks:
//   - a byte that is no white space starts a word when its class differs from that of the byte
//   before
//     it, unless that is a blank, which then starts the word itself;
//   - white space starts a word after anything else; and the last of a run of white space that
//     something follows starts another one (the pattern's (?!\S) gives one character back);
//   - an apostrophe that starts a word and is followed by s, t, re, ve, m, ll or d takes these
//   letters
//     and ends there.
// The pattern looks at nothing before the start of a word, so the two methods can take turns at any
// word: blocks with other bytes go to word_end().
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace trireme {

// The end of the word that starts at begin < text.size().
std::size_t word_end(std::string_view text, std::size_t begin);

namespace detail {

inline constexpr std::size_t kBlockBytes = 64;

// Bit i speaks of byte i of the block.
struct BlockMasks {
  std::uint64_t letter = 0;
  std::uint64_t number = 0;
  std::uint64_t space = 0;       // white space, blanks included
  std::uint64_t blank = 0;       // 0x20
  std::uint64_t apostrophe = 0;  // 0x27
  std::uint64_t high = 0;        // not ASCII: the other masks do not know this byte
};

// Fills masks[0 .. num_blocks) from num_blocks * kBlockBytes bytes.
void classify_blocks(const char* bytes, std::size_t num_blocks, BlockMasks* masks);

// Length of the contraction at text[at], which is an apostrophe; 0 when there is none.
std::size_t contraction_length(std::string_view text, std::size_t at);

// Whether there is a character at text[at] that is not white space.
bool has_non_space(std::string_view text, std::size_t at);

// From one block's masks to the bits where words start, with what one block owes to the next.
class BlockStarts {
 public:
  // block_begin: where the block lies in text.
  std::uint64_t next(const BlockMasks& block, std::string_view text, std::size_t block_begin) {
    const std::uint64_t other = ~(block.letter | block.number | block.space);
    const std::uint64_t same = (block.letter & after(block.letter, letter_)) |
                               (block.number & after(block.number, number_)) |
                               (other & after(other, other_));
    const std::uint64_t space_before = after(block.space, space_);
    const std::uint64_t blank_before = after(block.blank, blank_);
    std::uint64_t space_goes_on = block.space >> 1;
    if ((block.space >> 63) != 0 && !has_non_space(text, block_begin + kBlockBytes)) {
      space_goes_on |= std::uint64_t{1} << 63;
    }
    std::uint64_t starts =
        (~block.space & ~same & ~blank_before) | (block.space & (~space_before | ~space_goes_on));
    std::uint64_t owed_starts = 0;
    std::uint64_t owed_clear = 0;
    starts = (starts & ~clear_) | starts_;
    if ((starts & block.apostrophe) != 0) [[unlikely]] {
      take_contractions(block, text, block_begin, starts, owed_starts, owed_clear);
    }
    letter_ = block.letter >> 63;
    number_ = block.number >> 63;
    other_ = other >> 63;
    space_ = block.space >> 63;
    blank_ = block.blank >> 63;
    starts_ = owed_starts;
    clear_ = owed_clear;
    return starts;
  }

 private:
  static std::uint64_t after(std::uint64_t mask, std::uint64_t carry) {
    return (mask << 1) | carry;
  }

  static void take_contractions(const BlockMasks& block, std::string_view text,
                                std::size_t block_begin, std::uint64_t& starts,
                                std::uint64_t& owed_starts, std::uint64_t& owed_clear) {
    for (std::uint64_t left = starts & block.apostrophe; left != 0; left &= left - 1) {
      const auto bit = static_cast<std::size_t>(std::countr_zero(left));
      const std::size_t length = contraction_length(text, block_begin + bit);
      if (length == 0) {
        continue;
      }
      const auto mark = [](std::uint64_t& here, std::uint64_t& next, std::size_t at) {
        (at < kBlockBytes ? here : next) |= std::uint64_t{1} << (at % kBlockBytes);
      };
      std::uint64_t clear = 0;
      mark(clear, owed_clear, bit + 1);
      starts &= ~clear;
      mark(starts, owed_starts, bit + length);
    }
  }

  // Each the last bit of the block before, or what a contraction at its end says of this one. All
  // zero stands for the start of a word.
  std::uint64_t letter_ = 0, number_ = 0, other_ = 0, space_ = 0, blank_ = 0;
  std::uint64_t starts_ = 0, clear_ = 0;
};

// Takes whole ASCII blocks from the word start at begin on. Returns the start of the word that is
// under way where the run of such blocks ends, and that place in stop.
template <class Word>
std::size_t split_ascii(std::string_view text, std::size_t begin, Word& word, std::size_t& stop) {
  constexpr std::size_t kMaxBatch = 32;  // blocks; 1.5 KiB of masks
  std::array<BlockMasks, kMaxBatch> masks;
  BlockStarts block_starts;
  std::size_t word_begin = begin;
  std::size_t at = begin;
  // Small at first: text in another script ends the run at once.
  for (std::size_t batch = 1;; batch = std::min(batch * 4, kMaxBatch)) {
    const std::size_t num_blocks = std::min(batch, (text.size() - at) / kBlockBytes);
    classify_blocks(text.data() + at, num_blocks, masks.data());
    for (std::size_t i = 0; i < num_blocks; ++i, at += kBlockBytes) {
      if (masks[i].high != 0) {
        stop = at + kBlockBytes;
        return word_begin;
      }
      std::uint64_t starts = block_starts.next(masks[i], text, at);
      if (at == begin) {
        starts &= ~std::uint64_t{1};  // the start of word_begin itself
      }
      for (; starts != 0; starts &= starts - 1) {
        const std::size_t word_stop = at + static_cast<std::size_t>(std::countr_zero(starts));
        word(word_begin, word_stop);
        word_begin = word_stop;
      }
    }
    if (num_blocks < batch) {
      stop = text.size();
      return word_begin;
    }
  }
}

}  // namespace detail

// Calls word(begin, end) for each word of text, in order.
template <class Word>
void split_words(std::string_view text, Word&& word) {
  std::size_t begin = 0;
  while (begin < text.size()) {
    std::size_t stop = text.size();
    if (text.size() - begin >= detail::kBlockBytes) {
      begin = detail::split_ascii(text, begin, word, stop);
    }
    while (begin < stop) {
      const std::size_t end = word_end(text, begin);
      word(begin, end);
      begin = end;
    }
  }
}

}  // namespace trireme
