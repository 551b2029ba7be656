// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/tokenizer_bench.h"

#include <gtest/gtest.h>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using testing::TemporaryFolder;
using testing::write_text;

TEST(TokenizerBench, MeasuresWhatItSays) {
  const TemporaryFolder folder;
  std::int64_t bytes = 0;
  for (int i = 0; i < 9; ++i) {
    const std::string text(static_cast<std::size_t>(100 + i * 37), static_cast<char>('a' + i));
    write_text(folder / std::to_string(i), text);
    bytes += static_cast<std::int64_t>(text.size());
  }
  const TokenizerBenchReport report =
      bench_tokenizer({.text = folder.path().string(), .train = {.vocab_size = 270}});
  EXPECT_EQ(report.files, 9);
  EXPECT_EQ(report.bytes, bytes);
  EXPECT_EQ(report.train_bytes, bytes);
  EXPECT_EQ(report.vocab_size, 270);
  EXPECT_GT(report.tokens, 0);
  EXPECT_LT(report.tokens, bytes);
  for (const ThroughputSpread& spread : {report.encode, report.encode_warm, report.decode}) {
    EXPECT_GT(spread.p10, 0);
    EXPECT_LE(spread.p10, spread.median);
    EXPECT_LE(spread.median, spread.p90);
  }
}

TEST(TokenizerBench, TakesASpreadOfFilesWhenThereIsMoreText) {
  const TemporaryFolder folder;
  for (int i = 0; i < 50; ++i) {
    write_text(folder / std::to_string(100 + i), "words of file " + std::to_string(1000 + i));
  }
  const TokenizerBenchReport report = bench_tokenizer({.text = folder.path().string(),
                                                       .train = {.vocab_size = 270},
                                                       .text_bytes = 180,
                                                       .sample_bytes = 40});
  EXPECT_EQ(report.files, 10);
  EXPECT_EQ(report.train_bytes, 40);
}

TEST(TokenizerBench, RefusesWhatCannotBe) {
  const TemporaryFolder folder;
  EXPECT_THROW(bench_tokenizer({.text = folder.path().string()}), DataError);
  EXPECT_THROW(bench_tokenizer({.text = (folder / "missing").string()}), DataError);
  write_text(folder / "a", "text");
  EXPECT_THROW(bench_tokenizer({.text = folder.path().string(), .repetitions = 4}), ConfigError);
}

}  // namespace
}  // namespace trireme
