// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/tokenizer_bench.h"

#include <time.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <string_view>

#include "trireme/base/error.h"
#include "trireme/data/encoder.h"
#include "trireme/data/text_files.h"

namespace trireme {
namespace {

constexpr std::int64_t kMaxFileBytes = std::int64_t{64} << 20;

// Of this thread on a core: what other programs take does not count.
double thread_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class Work>
double seconds_of(const Work& work) {
  const double begin = thread_seconds();
  work();
  return thread_seconds() - begin;
}

ThroughputSpread spread_of(std::vector<double> seconds, std::int64_t bytes) {
  std::vector<double> rates;
  for (const double one : seconds) {
    rates.push_back(static_cast<double>(bytes) / 1e6 / one);
  }
  std::sort(rates.begin(), rates.end());
  const auto at = [&](double share) {  // nearest rank
    return rates[static_cast<std::size_t>(
        std::lround(share * static_cast<double>(rates.size() - 1)))];
  };
  return {.median = at(0.5), .p10 = at(0.1), .p90 = at(0.9)};
}

// Files at even steps through the folder, until they have text_bytes.
std::vector<std::string> read_texts(const TokenizerBenchOptions& options) {
  const detail::TextListing listing = detail::list_text_files(options.text, kMaxFileBytes, {});
  const std::int64_t total = listing.bytes();
  std::vector<std::string> texts;
  std::int64_t bytes = 0;
  double passed = 0;
  const double share =
      std::min(1.0, static_cast<double>(options.text_bytes) / static_cast<double>(total));
  for (const detail::TextFile& file : listing.files) {
    passed += share * static_cast<double>(file.size);
    if (static_cast<double>(bytes) >= passed) {
      continue;
    }
    std::optional<std::string> text = detail::read_text_file(listing.root, file, kMaxFileBytes);
    if (text && text->find('\0') == std::string::npos) {
      bytes += static_cast<std::int64_t>(text->size());
      texts.push_back(*std::move(text));
    }
  }
  if (texts.empty()) {
    throw_error<DataError>("no text file in {}; skipped: {}", options.text,
                           detail::describe_skipped(listing.skipped));
  }
  return texts;
}

Tokenizer get_tokenizer(const TokenizerBenchOptions& options, const std::vector<std::string>& texts,
                        TokenizerBenchReport& report) {
  if (!options.tokenizer.empty()) {
    return Tokenizer::load(options.tokenizer);
  }
  std::vector<std::string_view> sample;
  for (const std::string& text : texts) {
    const auto room = static_cast<std::size_t>(options.sample_bytes - report.train_bytes);
    sample.push_back(std::string_view(text).substr(0, room));
    report.train_bytes += static_cast<std::int64_t>(sample.back().size());
  }
  std::optional<Tokenizer> tokenizer;
  report.train_seconds =
      seconds_of([&] { tokenizer.emplace(train_tokenizer(sample, options.train)); });
  return *std::move(tokenizer);
}

void check_round_trip(const Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  Encoder encoder(tokenizer);
  for (const std::string& text : texts) {
    std::vector<TokenId> ids;
    encoder.encode(text, ids);
    if (tokenizer.decode(ids) != text) {
      throw_error<DataError>("a text of {} bytes does not decode to itself", text.size());
    }
  }
}

}  // namespace

TokenizerBenchReport bench_tokenizer(const TokenizerBenchOptions& options) {
  if (options.repetitions < 5) {
    throw_error<ConfigError>("{} repetitions are too few for a spread; give 5 or more",
                             options.repetitions);
  }
  TokenizerBenchReport report;
  const std::vector<std::string> texts = read_texts(options);
  report.files = static_cast<std::int64_t>(texts.size());
  for (const std::string& text : texts) {
    report.bytes += static_cast<std::int64_t>(text.size());
  }
  const Tokenizer tokenizer = get_tokenizer(options, texts, report);
  report.vocab_size = tokenizer.vocab_size();
  check_round_trip(tokenizer, texts);

  std::vector<TokenId> ids;
  const auto encode_all = [&](Encoder& encoder) {
    ids.clear();
    for (const std::string& text : texts) {
      encoder.encode(text, ids);
    }
  };
  {
    Encoder untimed(tokenizer);
    encode_all(untimed);  // ids has its memory from here on
  }
  report.tokens = static_cast<std::int64_t>(ids.size());
  std::vector<double> cold, warm, decode;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    Encoder encoder(tokenizer);
    cold.push_back(seconds_of([&] { encode_all(encoder); }));
    warm.push_back(seconds_of([&] { encode_all(encoder); }));
    decode.push_back(seconds_of([&] {
      constexpr std::size_t kPiece = 4096;  // tokens, about a document
      for (std::size_t at = 0; at < ids.size(); at += kPiece) {
        tokenizer.decode(std::span(ids).subspan(at, std::min(kPiece, ids.size() - at)));
      }
    }));
  }
  report.encode = spread_of(cold, report.bytes);
  report.encode_warm = spread_of(warm, report.bytes);
  report.decode = spread_of(decode, report.bytes);
  return report;
}

}  // namespace trireme
