"""Many runs: the package that will hold spaces, plans, Ray and submission."""
