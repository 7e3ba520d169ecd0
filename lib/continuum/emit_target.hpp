// The topic that a worker's handlers emit to. Private to the library.
#pragma once

#include "continuum/frame.hpp"
#include "continuum/ring.hpp"
#include "continuum/topic.hpp"

#include <map>

namespace continuum {

// Shared by the partitions of one worker.
class EmitTarget {
 public:
  explicit EmitTarget(Topic topic);

  [[nodiscard]] const Topic& topic() const { return topic_; }
  // As it is now. Throws Error{loss} when it is another topic of that name.
  void update(Topic topic);
  // Throws Error{loss} for a generation that the topic does not describe.
  [[nodiscard]] const Ring& ring(Generation generation);
  [[nodiscard]] FrameEncoder& encoder() { return encoder_; }

 private:
  Topic topic_;
  std::map<Generation, Ring> rings_;
  FrameEncoder encoder_;
};

}  // namespace continuum
