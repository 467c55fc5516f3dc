package Gatepost::Loader;

# Turns a plugin file into a package of its own, as qpsmtpd does: strict, with Qpsmtpd::Constants, a subclass of
# Qpsmtpd::Plugin. The same file may be loaded under several names, each with its own globals.
#
# find($source, \@dirs) -> path; load($name, $path, $package) -> class. Both die with what to do about it. compile() is load() with all
# said. module($name, \@dirs) -> class, path: a plugin that is a Perl module, as in `My::Plugin`; it is loaded once, whoever else names it.
# The package is named for $package, which is the plugin's name or something that no other is called; unload($package) forgets what is in it.

use strict;
use warnings;

use Cwd ();
use Symbol ();

# `rcpt_ok:2` is rcpt_ok loaded once more.
sub find {
    my ($source, $dirs) = @_;
    my @dirs = @{$dirs // []};
    my @tried;
    for my $file ($source, $source =~ s/:[0-9]+\z//r) {
        for my $path ($file =~ m{\A/} ? $file : ((map { "$_/$file" } @dirs), $file)) {
            return $path if -f $path;
            push @tried, $path;
        }
        last if $file !~ /:/ && $source eq $file;
    }
    my %seen;
    die "no such plugin file; looked for " . join(', ', grep { !$seen{$_}++ } @tried) . "\n";
}

sub is_module { return $_[0] =~ /\A\w+(?:::\w+)+\z/ }

# Beside Perl's own folders the site's `lib` is searched, in the working folder as in qpsmtpd, and beside its folders of plugins.
sub module {
    my ($name, $dirs) = @_;
    for my $lib (grep { -d } 'lib', map { "$_/../lib" } @{$dirs // []}) {
        my $folder = Cwd::abs_path($lib) // next;
        push @INC, $folder unless grep { $_ eq $folder } @INC;
    }
    (my $file = "$name.pm") =~ s{::}{/}g;
    require Qpsmtpd::Plugin;
    require $file;
    die "$INC{$file}: $name is no plugin, since it is no Qpsmtpd::Plugin\n" unless $name->isa('Qpsmtpd::Plugin');
    no strict 'refs';
    *{"${name}::plugin_name"} = sub { $name } unless defined &{"${name}::plugin_name"};
    return ($name, $INC{$file});
}

# qpsmtpd's spelling of a plugin's name as a package: queue/qmail-queue is queue::qmail_2dqueue.
sub package_name {
    my $name = shift;
    $name =~ s{([^A-Za-z0-9_/])}{sprintf '_%2x', ord $1}ge;
    $name =~ s{(^|/)([0-9])}{$1 . sprintf '_%2x', ord $2}ge;
    $name =~ s{/}{::}g;
    return $name;
}

sub load {
    my ($name, $path, $package) = @_;
    my $class = _class($package);
    compile($class, package_name($name), $path);
    return $class;
}

# $more is text that stands behind the plugin's, as part of it.
sub compile {
    my ($class, $plugin_name, $path, $more) = @_;
    open my $handle, '<', $path or die "$path: $!\n";
    my $text = do { local $/; <$handle> };
    close $handle;
    # What qpsmtpd had loaded, and some plugins thus use without asking for it.
    for my $module (grep { index($text, $_) >= 0 } qw(Net::DNS Net::IP IO::Select IO::Socket IO::File Mail::Header Sys::Hostname)) {
        (my $file = "$module.pm") =~ s{::}{/}g;
        local $@;
        eval { require $file };
    }
    _compile(join "\n",
        "package $class;",
        'use Qpsmtpd::Constants;',
        'use vars qw(@ISA);',
        'use strict;',
        '@ISA = qw(Qpsmtpd::Plugin);',
        "sub plugin_name { '$plugin_name' }",
        qq(#line 1 "$path"),
        $text, $more // ());
    die $@ =~ s/\s+\z//r . "\n" if $@;
    return;
}

sub _class { return 'Qpsmtpd::Plugin::' . package_name($_[0]) }

sub unload { Symbol::delete_package(_class($_[0])); return }

1;

# At the end of the file, so that the plugin's text sees none of its variables.
no strict;
no warnings;
sub _compile { eval "$_[0]\n;1" and $@ = '' }
