"""Teachers: curricula that watch the learner, and decide slice by slice what is learned next."""
