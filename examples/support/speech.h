// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Words spoken by eSpeak NG in several voices and speeds: a data set of speech that any machine can
// make.
//
//   const Speaker speaker;
//   const std::vector<Spoken> words = speaker.speak({.voices = training_voices(), .speeds = {140,
//   180}}); const at::Tensor features = words[0].features;  // what it sounds like words[0].text;
//   // what was said
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace trireme::examples {

inline constexpr std::int64_t kSpeechBands = 40;

// Variants of voices, with eSpeak's names for them. Held out: no variant or accent of training.
std::vector<std::string> training_voices();
std::vector<std::string> held_out_voices();
// Some thirty words of lower-case letters: the digits, and others that sound different.
std::vector<std::string> spoken_words();

struct SpeechOptions {
  std::vector<std::string> voices = {};  // as espeak-ng -v takes them
  std::vector<int> speeds = {160};       // words a minute
};

struct Spoken {
  std::string text;
  at::Tensor features;  // f32 [frames, kSpeechBands], see log_mel()
};

// eSpeak NG, whose state is the process's: make one of these in a process, and use it in one
// thread.
class Speaker {
 public:
  // Throws Error where eSpeak does not start.
  Speaker();
  ~Speaker();
  Speaker(const Speaker&) = delete;
  Speaker& operator=(const Speaker&) = delete;

  // All words by all voices at all speeds, in this order of loops: voice, speed, word. Some 3 ms a
  // word. eSpeak remembers what it said: the same calls give the same sounds, in another order they
  // differ a little. Throws DataError for a voice that eSpeak does not have; a variant that it does
  // not have (what follows "+") it ignores.
  std::vector<Spoken> speak(const SpeechOptions& options) const;

 private:
  at::Tensor say(const std::string& text, int words_a_minute) const;

  int rate_;  // samples a second
};

// Logarithm of the energy in kSpeechBands bands of the mel scale between 80 Hz and 7600 Hz, each
// with a mean of 0 and a deviation of 1 over the frames. samples: f32 [n], rate a second. Frames of
// 512 samples (Hann's window), 256 apart. Returns f32 [frames, kSpeechBands]; at least one frame.
at::Tensor log_mel(const at::Tensor& samples, int rate);

}  // namespace trireme::examples
