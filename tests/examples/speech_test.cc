// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/speech.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <numbers>

#include "examples/support/transcript.h"
#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(LogMel, ATonePeaksInTheBandOfItsPitch) {
  constexpr int kRate = 22050;
  const at::Tensor time = torch::arange(5000, at::kFloat) / kRate;
  // Half 500 Hz, half 3000 Hz: each band is compared with itself over time.
  const at::Tensor low = (time * (2 * std::numbers::pi * 500)).sin();
  const at::Tensor high = (time * (2 * std::numbers::pi * 3000)).sin();
  const at::Tensor features = log_mel(torch::cat({low, high}), kRate);
  ASSERT_THAT(features.sizes(), ElementsAre(40, kSpeechBands));
  EXPECT_TRUE(features.isfinite().all().item<bool>());
  // 500 Hz is band 7 of the mel scale (607 mel), 3000 Hz band 25 (1876 mel), steps of 66.4 mel.
  EXPECT_GT(features[5][7].item<float>(), 0.5F);
  EXPECT_LT(features[35][7].item<float>(), -0.5F);
  EXPECT_LT(features[5][25].item<float>(), -0.5F);
  EXPECT_GT(features[35][25].item<float>(), 0.5F);
}

TEST(LogMel, TheShortestSoundHasAFrame) { EXPECT_GE(log_mel(torch::ones({1}), 22050).size(0), 1); }

// One test: eSpeak starts once in a process.
TEST(Speaker, SaysAllWordsByAllVoicesAndRefusesOthers) {
  const Speaker speaker;
  const auto spoken = speaker.speak({.voices = {"en-us+m1", "en-us+f2"}, .speeds = {130, 190}});
  const std::size_t words = spoken_words().size();
  ASSERT_EQ(spoken.size(), 4 * words);
  for (std::size_t i = 0; i < spoken.size(); ++i) {
    EXPECT_EQ(spoken[i].text, spoken_words()[i % words]);
    EXPECT_EQ(spoken[i].features.size(1), kSpeechBands);
    EXPECT_TRUE(spoken[i].features.isfinite().all().item<bool>()) << i;
  }
  // Said faster, a word is shorter.
  EXPECT_LT(spoken[words].features.size(0), spoken[0].features.size(0));
  EXPECT_THAT([&] { speaker.speak({.voices = {"nonsense"}}); },
              ThrowsMessage<DataError>(HasSubstr("nonsense")));
}

TEST(Transcript, RepeatedLettersCountOnceAndBlanksPartThem) {
  const at::Tensor best = torch::tensor({0, 26, 26, 0, 5, 18, 18, 0, 18, 15, 15, 0}, at::kLong);
  EXPECT_EQ(transcript(best), "zerro");
  EXPECT_EQ(transcript(torch::tensor({0, 0}, at::kLong)), "");
}

TEST(Edits, CountsInsertionsDropsAndChanges) {
  EXPECT_EQ(edits("seven", "seven"), 0U);
  EXPECT_EQ(edits("sevn", "seven"), 1U);
  EXPECT_EQ(edits("sevvenn", "seven"), 2U);
  EXPECT_EQ(edits("eleven", "seven"), 2U);
  EXPECT_EQ(edits("", "seven"), 5U);
  EXPECT_EQ(edits("seven", ""), 5U);
}

}  // namespace
}  // namespace trireme::examples
